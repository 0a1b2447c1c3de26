"""Reading and writing of files for all packages, and safe display of external text. Imports no other package."""
