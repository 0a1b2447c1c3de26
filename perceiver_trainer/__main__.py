"""The command `perceiver`, also as `python -m perceiver_trainer`, a name that nothing shadows."""

import sys

from perceiver_trainer import shadowing


def main() -> None:
    """Run the command; status 2 where other packages stand in the way of ours."""
    sentence = shadowing.problem(is_command=True)
    if sentence:
        sys.stderr.write(f"perceiver: {sentence}\n")
        sys.exit(2)
    # Only now: these packages may be shadowed.
    from launch.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
