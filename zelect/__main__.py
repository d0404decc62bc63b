"""`python -m zelect`: the same as the command `zelect`."""

from __future__ import annotations

from zelect.cli import main

if __name__ == "__main__":
    main()
