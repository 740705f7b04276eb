"""The paper's results, made again: experiments -> networks -> measurements -> tables, figures, claims -> report."""

PARTS = ("fig1", "mnist", "fig2", "fig4b", "fig5a", "fig5b", "stopgrad", "cifar10", "fig3", "fig4a")
"""What `robustcli reproduce` takes beside `all`. No torch here, so that its help answers at once."""
