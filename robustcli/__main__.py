"""`python -m robustcli`."""

from robustcli.cli import main

main()
