"""One operation a file, each with its plain reference."""
