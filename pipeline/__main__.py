"""Entry point of the `pipeline` command and of `python -m pipeline`."""

from pipeline.cli import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
