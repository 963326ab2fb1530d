"""A datasheet of a store, answered from its manifest: nothing in it is typed by hand but the questions.

What a study's author or a file says is escaped: it is text, whatever markup it looks like.

Source: Gebru et al. 2021, "Datasheets for datasets" (arXiv 1803.09010), its seven sections.
"""

import html
import re

import pandas as pd

from mae_lib.images.card import describe, set_aside_frame, tasks_frame, terms_frame
from mae_lib.images.duplicates import summary
from mae_lib.images.store import Store

# What Markdown, or a table, a formula or a substitution in it, takes for markup inside a line.
_MARKUP = re.compile(r"([\\`*\[\]|~${}]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def datasheet(store: Store, *, name: str, question: str, pairs: pd.DataFrame) -> str:
    """Return the datasheet as Markdown; `pairs` are the store's duplicates."""
    recipe = store.manifest["recipe"]
    answers = {
        "Motivation": _motivation(name, question),
        "Composition": _composition(store, pairs),
        "Collection process": _collection(recipe),
        "Preprocessing": _preprocessing(store),
        "Uses": _uses(recipe),
        "Distribution": _distribution(store),
        "Maintenance": _maintenance(store),
    }
    parts = [f"# Datasheet: {name}"]
    for heading, lines in answers.items():
        parts += [f"## {heading}", *lines]
    return "\n\n".join(parts) + "\n"


def _motivation(name: str, question: str) -> list[str]:
    return [
        f"**For what purpose was the set made?** To answer the question of the study `{name}`: "
        f"{_escaped(question)}",
        "**By whom?** By whoever ran `mae data build`: the set is a recipe, its bytes are made "
        "where they are used.",
    ]


def _composition(store: Store, pairs: pd.DataFrame) -> list[str]:
    recipe, side = store.manifest["recipe"], store.images.shape[1]
    drawn = recipe["kind"] == "procedural"
    what = "drawn by code" if drawn else "photographs"
    card = describe(store)
    aside = store.manifest.get("set_aside", {})
    counted = ", ".join(f"{count:,} {kind}" for kind, count in aside.items()) or "none"
    found = pairs["kind"].value_counts()
    kinds = ", ".join(f"{int(found.get(k, 0)):,} {k}" for k in ("bytes", "pixels", "near"))
    people = (
        "No: nobody is shown."
        if drawn
        else "Yes, where a source shows faces or streets. Nobody consented to this use beyond what "
        "the publishers state."
    )
    return [
        f"**What does an instance show?** {len(store.images):,} images, {what}, "
        f"{side} x {side} pixels, RGB.",
        _table(card),
        f"**Is it a sample?** Yes, chosen by a keyed hash with seed {recipe['seed']}, so that a "
        "smaller subset lies inside every larger one.",
        "**Are there labels?** For the evaluation tasks:",
        _table(tasks_frame(store)),
        f"**Is anything missing?** Images set aside: {counted}.",
        *([_table(set_aside_frame(store).head(20))] if aside else []),
        f"**Are there duplicates?** Pairs found: {kinds}.",
        *([_table(summary(pairs))] if len(pairs) else []),
        f"**Are people identifiable?** {people}",
    ]


def _collection(recipe: dict) -> list[str]:
    if recipe["kind"] == "procedural":
        return [
            "**How was it acquired?** Every image is drawn from a counter by `mae_lib.images."
            "procedural`; the same item is the same image on every machine."
        ]
    return [
        "**How was it acquired?** From the publishers' own files, in their own layouts, by whoever "
        "agreed to their terms.",
        _table(terms_frame([source["name"] for source in recipe["sources"]], recipe["kind"])),
    ]


def _preprocessing(store: Store) -> list[str]:
    manifest = store.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    lines = [f"**What was done to the images?** {manifest['transform']}; made with {versions}."]
    if "smaller" in manifest:
        lines.append(f"**Other sides?** {manifest['smaller']}: {store.sides[1:]} pixels.")
    twins = manifest["recipe"].get("twins", "keep")
    lines.append(
        "**Was anything filtered?** "
        + (
            "Images that an evaluation split shows too were left out."
            if twins == "drop"
            else "No; images that evaluation shows too are listed and kept."
        )
    )
    return lines


def _uses(recipe: dict) -> list[str]:
    tasks = ", ".join(task["name"] for task in recipe["tasks"])
    return [
        f"**For what is it fit?** Pretraining masked auto-encoders, and linear and nearest-neighbour "
        f"probes on {tasks}.",
        "**For what is it not fit?** Any statement about people, and any product: the terms of its "
        "sources forbid that where they are photographs.",
    ]


def _distribution(store: Store) -> list[str]:
    recipe = store.manifest["recipe"]
    terms = terms_frame([s["name"] for s in recipe["sources"]], recipe["kind"])
    forbidden = terms.loc[terms["may_be_passed_on"] == "no", "source"].tolist()
    if forbidden:
        return [
            f"**May it be passed on?** No: {', '.join(forbidden)} forbid redistribution. The project "
            "ships the manifest and no image."
        ]
    return ["**May it be passed on?** See the terms of each source; the project ships no image."]


def _maintenance(store: Store) -> list[str]:
    manifest = store.manifest
    return [
        f"**How is it identified?** Recipe `{manifest['digest']}`, pixels "
        f"`{manifest['files']['images.npy']}`, manifest `{manifest_seal(store)}`.",
        "**How is it checked?** `mae data verify`, which names the rows of a changed block.",
    ]


def manifest_seal(store: Store) -> str:
    """Return the sha256 that seals a store's manifest: the name of the whole."""
    from mae_lib.records.sealed import seal_of

    return seal_of(store.manifest)


def _table(frame: pd.DataFrame) -> str:
    """Return a frame as a Markdown table, cells escaped."""
    head = "| " + " | ".join(str(column).replace("_", " ") for column in frame.columns) + " |"
    rule = "|" + " --- |" * len(frame.columns)
    rows = [
        "| " + " | ".join(_cell(value) for value in row) + " |"
        for row in frame.itertuples(index=False)
    ]
    return "\n".join([head, rule, *rows])


def _cell(value: object) -> str:
    return _escaped(f"{value:,}" if isinstance(value, int) else str(value))


def _escaped(text: str) -> str:
    """Return one line of Markdown that is read as `text`, its white space apart."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
