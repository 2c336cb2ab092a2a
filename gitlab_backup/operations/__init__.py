"""The workflows: each reads like the list of steps that it is."""
