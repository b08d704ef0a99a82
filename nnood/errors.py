"""The one exception that says: the input is wrong, and here is what to do about it."""


class UserError(Exception):
    """A fault that the user can mend.

    Its message is one sentence that names the file or option, says what is wrong and what to do. The commands print
    it without a traceback and exit with status 2.
    """


def one_error(faults: list[str]) -> None:
    """Report all faults of one check together.

    Args:
        faults: One sentence per fault; may be empty.

    Raises:
        UserError: If there is any fault. Several are listed one per line.
    """
    if len(faults) == 1:
        raise UserError(faults[0])
    if faults:
        raise UserError(f"{len(faults)} faults were found:\n" + "\n".join(f"  - {fault}" for fault in faults))
