"""Allow ``python -m napari_defects``."""

from .cli import main

if __name__ == "__main__":
    main()
