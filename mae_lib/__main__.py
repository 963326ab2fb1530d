"""`python -m mae_lib` is `mae`."""

from mae_lib.cli.main import main

if __name__ == "__main__":
    main()
