"""The page: what people are told, over HTTP. It only reads, in a process of its own.

server     where it listens, and the process
app        every address, and who answers it
guard      what is refused, and what every answer says about itself
answers    the documents, from the ledger and the files
kept       an answer that is made by one thread and given to all
pages      the documents as HTML
api        the documents as JSON
downloads  published files
events     a live update
charts     drawings as SVG
actions    retry, rerun, release, cancel
words      numbers and times as the page writes them
"""

from ds_flow.web.server import serve_page

__all__ = ["serve_page"]
