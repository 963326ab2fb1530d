"""One function a chart: a tidy frame in, an altair chart out. Never imports torch."""
