"""Where a machine keeps what it measured or compiled for itself; losing it costs seconds."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder: `MAE_CACHE`, else the user's own cache folder."""
    if wish := os.environ.get("MAE_CACHE"):
        return Path(wish)
    try:
        from platformdirs import user_cache_path
    except ImportError:
        return Path(tempfile.gettempdir()) / f"mae-lib-{os.getuid()}"
    return user_cache_path("mae-lib")
