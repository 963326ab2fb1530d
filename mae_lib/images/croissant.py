"""Croissant metadata of a store: what its files are and hold, as JSON-LD that other tools read.

Source: MLCommons Croissant 1.0. The pixels are not offered: a reader builds them from the recipe.
"""

from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.card import terms_frame
from mae_lib.images.store import Store
from mae_lib.records.atomic import write_json

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
_FORMATS = {
    ".npy": "application/x-npy",
    ".parquet": "application/x-parquet",
    ".csv": "text/csv",
}
_FIELDS = {
    "source": ("sc:Text", "The part of the mixture that the image comes from."),
    "name": ("sc:Text", "The publisher's name of the image."),
    "label": ("sc:Integer", "The class in its own source, -1 where it has none."),
    "native_width": ("sc:Integer", "Width in pixels as published."),
    "native_height": ("sc:Integer", "Height in pixels as published."),
    "sha256": ("sc:Text", "Hash of the stored pixels."),
}


def croissant(store: Store, *, name: str, description: str) -> dict:
    """Return the metadata of a store as plain values, the same for the same store."""
    manifest = store.manifest
    recipe = manifest["recipe"]
    terms = terms_frame([source["name"] for source in recipe["sources"]], recipe["kind"])
    drawn = recipe["kind"] == "procedural"
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "description": description,
        "version": f"1.0.0+{manifest['digest']}",
        "url": "https://arxiv.org/abs/2308.05092",
        "license": [_LICENCE] if drawn else sorted(set(terms["page"]) - {""}),
        "citeAs": "arXiv:2308.05092, rebuilt from the manifest with this digest",
        "isLiveDataset": False,
        "distribution": [_file(file, sha256) for file, sha256 in sorted(manifest["files"].items())],
        "recordSet": [_records(store)],
        "cr:rights": {row.source: row.terms for row in terms.itertuples()},
    }


def write_croissant(store: Store, path: Path, *, name: str, description: str) -> Path:
    """Write the metadata as JSON-LD; return the path."""
    write_json(path, croissant(store, name=name, description=description))
    return path


def _file(file: str, sha256: str) -> dict:
    suffix = Path(file).suffix
    if suffix not in _FORMATS:
        raise StoreError(f"{file}: no known kind of file in a store")
    return {
        "@type": "cr:FileObject",
        "@id": file,
        "name": file,
        "contentUrl": file,
        "encodingFormat": _FORMATS[suffix],
        "sha256": sha256,
    }


def _records(store: Store) -> dict:
    """Describe the index, a record an image of the mixture, in the order of images.npy."""
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": f"{len(store.index):,} images, a row each, in the order of images.npy.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"images/{column}",
                "name": f"images/{column}",
                "description": text,
                "dataType": kind,
                "source": {
                    "fileObject": {"@id": "index.parquet"},
                    "extract": {"column": column},
                },
            }
            for column, (kind, text) in _FIELDS.items()
        ],
    }


# The terms of the specification, as it prescribes them.
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
