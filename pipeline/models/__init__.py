"""Policies that no run of this configuration made: found, checked, evaluated, and put beside one another."""
