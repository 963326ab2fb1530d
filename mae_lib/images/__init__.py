"""From the sources' own files, or from code, to one packed array of pixels."""
