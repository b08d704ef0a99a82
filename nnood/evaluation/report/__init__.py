"""One HTML file with figures, curves and a viewer of all cases."""
