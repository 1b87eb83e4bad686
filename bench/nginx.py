"""The two nginx: one that serves files written beforehand (the limit), one that caches and rewrites (a user's choice).

Both are as fast as their operators could make them: one worker, no log, descriptors cached, connections kept.
"""

from __future__ import annotations

import gzip
import os
import resource
from typing import TYPE_CHECKING

from bench import world
from bench.heads import JSON
from teepi.http_semantics import PageFormat
from teepi.simple_api import parse_page, render

if TYPE_CHECKING:
    from pathlib import Path

_COMMON = """
%(user)s
daemon off;
worker_processes 1;
worker_rlimit_nofile %(files)d;
pid %(directory)s/nginx.pid;
error_log %(directory)s/error.log warn;
events { worker_connections 4096; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path %(directory)s/body;
    fastcgi_temp_path %(directory)s/fastcgi;
    scgi_temp_path %(directory)s/scgi;
    uwsgi_temp_path %(directory)s/uwsgi;
    proxy_temp_path %(directory)s/temp;
    default_type application/octet-stream;
    map $http_accept $form {
        default html;
        "~application/vnd\\.pypi\\.simple\\.v1\\+json" json;
    }
    open_file_cache max=%(cached)d inactive=1d;
    open_file_cache_valid 1d;
    %(rest)s
}
"""

_STATIC = """
    types { application/vnd.pypi.simple.v1+json json; text/html html; application/octet-stream whl metadata; }
    gzip_static on;
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        root %(directory)s/root;
        location /root/pypi/+simple/ { try_files ${uri}index.$form =404; }
        location /root/pypi/+http/ { gzip_static off; }
    }
"""

# Its own words for what such recipes do: pages by form, rewritten and compressed on each hit; files by path.
_PROXY = """
    types { }
    proxy_cache_path %(directory)s/pages levels=1:2 keys_zone=pages:20m max_size=1g inactive=1d use_temp_path=off;
    proxy_cache_path %(directory)s/cache levels=1:2 keys_zone=files:20m max_size=50g inactive=1d use_temp_path=off;
    upstream origin { server 127.0.0.1:%(upstream)d; keepalive 64; }
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_ignore_headers Cache-Control Expires Vary;
    proxy_cache_valid 200 1d;
    proxy_cache_lock on;
    proxy_cache_lock_age 600s;
    proxy_cache_lock_timeout 600s;
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        location /simple/ {
            proxy_pass http://origin;
            proxy_set_header Accept-Encoding "";
            proxy_cache pages;
            proxy_cache_key "$uri $form";
            sub_filter 'http://127.0.0.1:%(upstream)d/' '/';
            sub_filter_once off;
            sub_filter_types application/vnd.pypi.simple.v1+json;
            gzip on;
            gzip_proxied any;
            gzip_types application/vnd.pypi.simple.v1+json;
        }
        location / {
            proxy_pass http://origin;
            proxy_set_header Accept-Encoding "";
            proxy_cache files;
            proxy_cache_key $uri;
        }
    }
"""


def write_tree(directory: Path, offered: world.World, upstream: int) -> None:
    """Write what teepi answers, plain and compressed, below ``directory/root``, and link the files there.

    So both send the same bytes under the same paths.
    """
    index = directory / "root" / "root" / "pypi"
    files = index / "+http" / f"127.0.0.1:{upstream}" / "files"
    files.parent.mkdir(parents=True)
    files.symlink_to(offered.directory / "files")
    for project, lines in offered.projects.items():
        url = f"http://127.0.0.1:{upstream}/simple/{project}/"
        sent = world.page_json(project, lines, f"http://127.0.0.1:{upstream}/files/")
        page = parse_page(sent, content_type=JSON, url=url, index="root/pypi", project=project)
        folder = index / "+simple" / project
        folder.mkdir(parents=True)
        for form, kind in (("json", PageFormat.JSON), ("html", PageFormat.HTML)):
            body = render(page, kind, "../../../../root/pypi/")
            (folder / f"index.{form}").write_bytes(body)
            (folder / f"index.{form}.gz").write_bytes(gzip.compress(body, 6, mtime=0))


def configuration(directory: Path, port: int, upstream: int, *, is_proxy: bool) -> str:
    """Return nginx.conf: of the caching proxy in front of ``upstream``, or of the static server."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 65536 if os.geteuid() == 0 or hard == resource.RLIM_INFINITY else min(65536, hard)
    values = {
        "directory": directory,
        "port": port,
        "upstream": upstream,
        "files": files,
        "cached": files // 2,
        "user": "user root;" if os.geteuid() == 0 else "",  # else the worker may not enter the directory
    }
    rest = (_PROXY if is_proxy else _STATIC) % values
    return _COMMON % (values | {"rest": rest})
