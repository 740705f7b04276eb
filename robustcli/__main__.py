"""`python -m robustcli`."""

from robustcli.cli.main import main

main()
