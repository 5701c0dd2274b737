"""A row layout: a chat log with one row for each exchange."""

from preceptor import Layout


class ChatLog(Layout):
    """Rows of what was said, what a bot replied, and which bot."""

    instruction_columns = ("said",)
    response_columns = ("replied",)
    teacher_columns = ("bot",)
