"""The work that everybody does: a dict of three keys and one printed line. Imports nothing."""


def work(ident, args, subdir):
    """The function of the collection."""
    print('computing', ident)
    return {'ident': ident, 'length': len(ident), 'half': 0.5}


def idents(number, first=0):
    """So many idents."""
    return [f'item-{each:07}' for each in range(first, first + number)]
