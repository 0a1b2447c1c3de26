"""`python -m launch` is the command `perceiver`, from the code in the working directory."""

from perceiver_trainer.__main__ import main

if __name__ == "__main__":
    main()
