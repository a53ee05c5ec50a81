"""The one exception that users are meant to see."""


class UserError(Exception):
    """Something the user can mend; the message is one sentence that names what, where and the mend.

    The command line prints it after its own name and exits with status 2. A notebook shows the
    sentence alone, without a traceback, because the fault is in the input and not in the code.
    """

    def _render_traceback_(self) -> list[str]:
        # IPython looks for this method and shows what it returns in place of its own traceback.
        return [f"{type(self).__name__}: {self}"]
