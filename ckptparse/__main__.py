"""`python -m ckptparse` is the command `ckptparse`."""

from __future__ import annotations

from ckptparse.cli import main

if __name__ == "__main__":
    main()
