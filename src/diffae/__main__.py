"""`python -m diffae`."""

from diffae.cli import main

if __name__ == "__main__":
    main()
