"""`python -m medistill`, the form that torchrun starts: `torchrun -m medistill VERB`."""

from medistill.cli import main

if __name__ == "__main__":
    main()
