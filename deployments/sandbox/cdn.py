"""The content network: video links that redirect to a storage, which hands out the files."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from deployments.sandbox import answers, faults
from deployments.sandbox.answers import Problem
from deployments.sandbox.clip import clip, still
from deployments.sandbox.connection import Truncated
from deployments.sandbox.generations import Generation
