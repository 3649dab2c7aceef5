"""A web service: GET /savings?start=1000 answers with the plan as JSON."""

from __future__ import annotations

import asyncio

from tornado.web import Application, RequestHandler

from apps.savings import plan


class Savings(RequestHandler):
    """Answers with a plan."""

    def get(self) -> None:
        """The plan for the sum that is asked for."""
        try:
            start = float(self.get_query_argument("start", "1000"))
        except ValueError:
            self.set_status(400)
            self.write({"error": "start is to be a number, as in /savings?start=1000"})
        else:
            self.write({"plan": plan(start).to_dict(orient="records")})


class Health(RequestHandler):
    """Answers whoever asks whether the service is alive."""

    def get(self) -> None:
        """All is well."""
        self.write("ok")


async def main() -> None:
    """Serve for ever."""
    Application([("/savings", Savings), ("/health", Health)]).listen(8000)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
