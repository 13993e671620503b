"""The frame of the report: its style, and nothing that is fetched."""

from __future__ import annotations

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title} - training report</title>
<style>
:root {{ --paper: #fff; --ink: #1d1f23; --faint: #5d6470; --edge: #d9dce1; --grid: #e6e8ec; --band: #2f9e4422;
  --warn: #fff4d6; --warn-edge: #b7791f;
  --c0: #0b69b3; --c1: #c4500b; --c2: #0a7f5c; --c3: #a83a7a; --c4: #8a6d00; --c5: #6a4fb3; --c6: #5f6368;
  --c7: #8b4a20; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #15171b; --ink: #e6e8eb; --faint: #a0a7b2; --edge: #363b44; --grid: #2a2e36; --band: #4dd28a22;
    --warn: #3a2f12; --warn-edge: #d9a441;
    --c0: #5cb3f5; --c1: #ff9a62; --c2: #4cd0a4; --c3: #ec90c4; --c4: #e3c34a; --c5: #ac9cf0; --c6: #b0b5bd;
    --c7: #d39a6c; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.4rem; margin: .2rem 0; }} h2 {{ font-size: 1.2rem; margin: 1.6rem 0 .2rem; }}
h3 {{ font-size: 1rem; margin: 1.4rem 0 .4rem; }}
a {{ color: var(--c0); }}
.state, .note {{ color: var(--faint); font-size: .85rem; margin: .2rem 0; }}
.findings {{ background: var(--warn); border-left: 4px solid var(--warn-edge); margin: .8rem 0;
  padding: .6rem .8rem .6rem 1.8rem; }}
.charts {{ display: grid; gap: 1rem; margin-top: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }}
figure {{ margin: 0; padding: .6rem; border: 1px solid var(--edge); border-radius: .4rem; min-width: 0; }}
figcaption {{ font-weight: 600; float: left; }}
figure input {{ position: absolute; opacity: 0; }}
figure label {{ float: right; padding: .1rem .5rem; font-size: .8rem; color: var(--faint); border-radius: .3rem;
  cursor: pointer; }}
figure input:checked + label {{ background: var(--grid); color: var(--ink); }}
figure input:focus-visible + label {{ outline: 2px solid var(--c0); }}
.linear, .log {{ clear: both; }}
.log {{ display: none; }}
input[id^="log-"]:checked ~ .log {{ display: block; }}
input[id^="log-"]:checked ~ .linear {{ display: none; }}
svg {{ display: block; width: 100%; height: auto; }}
svg text {{ font: 11px system-ui, sans-serif; fill: var(--faint); }}
.grid {{ stroke: var(--grid); fill: none; }} .band {{ fill: var(--band); }}
.line {{ fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; }}
.faint {{ opacity: .3; stroke-width: 1; }}
.dot {{ fill: currentColor; }} .ring {{ fill: none; stroke: currentColor; stroke-width: 1.6; }}
.c0 {{ color: var(--c0); }} .c1 {{ color: var(--c1); }} .c2 {{ color: var(--c2); }} .c3 {{ color: var(--c3); }}
.c4 {{ color: var(--c4); }} .c5 {{ color: var(--c5); }} .c6 {{ color: var(--c6); }} .c7 {{ color: var(--c7); }}
.legend {{ list-style: none; display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .4rem 0 0; padding: 0;
  font-size: .82rem; }}
.key {{ display: inline-block; width: 1.1rem; margin-right: .3rem; border-top: 3px solid currentColor;
  vertical-align: middle; }}
.dashed {{ border-top-style: dashed; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .88rem; }}
td, th {{ text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--grid); vertical-align: top;
  overflow-wrap: normal; }}
@media (max-width: 30rem) {{ td, th {{ padding-right: .45rem; }} table {{ font-size: .82rem; }} }}
summary h3 {{ display: inline; }}
.settings td {{ overflow-wrap: anywhere; min-width: 7rem; }}
details {{ margin: .4rem 0; }} summary {{ cursor: pointer; }}
img {{ display: block; height: auto; margin-top: .4rem; }}
pre {{ font-size: .82rem; line-height: 1.35; }}
</style>
</head>
<body>
<h1>{title}</h1>
{nav}
{stages}
</body>
</html>
"""
