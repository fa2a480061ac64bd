"""`python -m shared_prompt_cache`: the command line."""

import sys

from shared_prompt_cache.cli import main

if __name__ == "__main__":
    sys.exit(main())
