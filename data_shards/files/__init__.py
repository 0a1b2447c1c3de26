"""What every part writes and reads files with, and how text from outside is shown. Imports nothing of the project."""
