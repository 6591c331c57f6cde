"""``python -m hadrosaur`` is the command line."""

from hadrosaur.cli import main

if __name__ == '__main__':
    main()
