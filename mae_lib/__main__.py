"""`python -m mae_lib` is `mae`; two commands also run where only torch is installed."""

import sys

from mae_lib.cli import bare

if __name__ == "__main__":
    if bare.wanted(sys.argv[1:]):
        sys.exit(bare.main(sys.argv[1:]))
    from mae_lib.cli.main import main

    main()
