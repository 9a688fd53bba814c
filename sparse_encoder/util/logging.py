"""Log records among progress bars."""

from __future__ import annotations

import logging

from tqdm.auto import tqdm


class LoggingHandler(logging.Handler):
    """Write log records to standard output, above progress bars that are being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            tqdm.write(self.format(record))
        except (OSError, TypeError, ValueError):  # a message that does not fit its arguments, or a closed output
            self.handleError(record)
