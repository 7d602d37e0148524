"""The demo's shop as a person sees it: pages that tell Lotse what happens on them, and show what it makes of that."""
