"""The cache in the places where other packages expect something of their own.

Each module needs the package that it speaks to, and is imported by itself: nothing is loaded that is not asked for.
"""
