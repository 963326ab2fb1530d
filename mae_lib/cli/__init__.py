"""The `mae` command."""
