"""`python -m launch` is the command `perceiver`, from the code in the working directory."""

from launch.cli import main

if __name__ == "__main__":
    main()
