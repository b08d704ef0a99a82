"""From raw images to what training reads: foreground, fingerprint, plan, preprocessing."""
