"""Find and read a study's YAML file: safe, each key once, one line for what is wrong."""

from pathlib import Path

import yaml

from mae_lib.errors import StudyError
from mae_lib.study.paths import root, safe_name
from mae_lib.study.suggest import nearest


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise StudyError(f"line {node.start_mark.line + 1}: {key}: given twice")
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def study_path(name_or_path: str | Path) -> Path:
    """Find a study by its file, or by its name under `studies/`.

    Raises: StudyError for a folder, and for what can be neither a name nor such a file.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        path = path if path.is_absolute() or path.exists() else root() / path
        if path.is_dir():
            raise _no_file(path, str(name_or_path))
        return path
    if "/" in str(name_or_path):
        raise _no_file(path, str(name_or_path))
    return root() / "studies" / f"{safe_name(str(name_or_path), 'study')}.yaml"


def _no_file(path: Path, got: str) -> StudyError:
    if not path.is_dir():
        return StudyError(
            f"study: a name under studies/, or a file that ends in .yaml, is wanted, got {got!r}"
        )
    inside = sorted(file.name for file in path.glob("*.y*ml"))
    held = f"it holds {', '.join(inside[:3])}" if inside else "none lies in it"
    more = f" (+{len(inside) - 3} more)" if len(inside) > 3 else ""
    return StudyError(f"study: {path} is a folder; name a study's file: {held}{more}")


def read_yaml(path: Path) -> dict:
    """Read a file that holds one mapping.

    Raises: StudyError in one line: file, line, problem.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        known = [file.stem for file in path.parent.glob("*.yaml")]
        raise StudyError(f"{path}: no such study{nearest(path.stem, known)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read, got {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise StudyError(
            f"{path}:{line} is not YAML, got {getattr(error, 'problem', None) or error}"
        ) from None
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise StudyError(f"{path}: a study is a mapping of fields, got {type(content).__name__}")
    return content
