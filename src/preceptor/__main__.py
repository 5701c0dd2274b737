"""`python -m preceptor` is the command line."""

from preceptor.cli.app import main

if __name__ == "__main__":
    main()
