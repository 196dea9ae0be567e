"""Drives the official Python SDK over Streamable HTTP and tells what it saw, a JSON object a line: `{"did": NAME, ...}`.

    driver.py URL legacy|modern

A story that fails tells `error`; the next ones are told all the same.
"""

import asyncio
import json
import sys
import traceback
import warnings

import mcp_types as types
from mcp import Client
from mcp.shared.exceptions import MCPError

# The SDK marks what older revisions need.
warnings.simplefilter("ignore")

PATIENCE_S = 15.0
SAMPLED = "a model's answer"
FILLED_IN = "Ada"
ROOT = "file:///home/ada"
WATCHED = "test://watched-resource"

STORIES = []


def story(told):
    STORIES.append(told)
    return told


def say(did, **what):
    print(json.dumps({"did": did, **what}), flush=True)


async def sample(_context, _params):
    content = types.TextContent(type="text", text=SAMPLED)
    return types.CreateMessageResult(role="assistant", content=content, model="a model", stop_reason="endTurn")


async def elicit(_context, params):
    properties = getattr(params, "requested_schema", {}).get("properties", {})
    values = {"boolean": True, "integer": 30, "number": 30}
    content = {name: values.get(schema.get("type"), FILLED_IN) for name, schema in properties.items()}
    return types.ElicitResult(action="accept", content=content)


async def list_roots(_context):
    return types.ListRootsResult(roots=[types.Root(uri=ROOT)])


class Peer:
    """A connected client, and what it heard."""

    def __init__(self, url, era):
        self.era = era
        self.logged = []
        self.heard = asyncio.Queue()
        # Without a cache each story sees the server.
        self.client = Client(
            url,
            mode="legacy" if era == "legacy" else "auto",
            sampling_callback=sample,
            elicitation_callback=elicit,
            list_roots_callback=list_roots,
            logging_callback=self._log,
            message_handler=self._hear,
            log_level="debug" if era == "modern" else None,
            read_timeout_seconds=PATIENCE_S,
            cache=None,
        )

    async def _log(self, params):
        self.logged.append(params.level)

    async def _hear(self, message):
        await self.heard.put(getattr(message, "method", None) or str(message))

    async def text(self, tool, arguments=None, **options):
        result = await self.client.call_tool(tool, arguments or {}, **options)
        return result.content[0].text


async def code(request):
    """The code of the error that it is answered with."""
    try:
        return {"result": repr(await request)}
    except MCPError as error:
        return error.error.code


@story
async def connect(peer):
    capabilities = peer.client.server_capabilities.model_dump(exclude_none=True)
    return {"version": peer.client.protocol_version, "capabilities": sorted(capabilities)}


@story
async def tools(peer):
    listed = (await peer.client.list_tools()).tools
    return {
        "listed": "test_simple_text" in [tool.name for tool in listed],
        "text": await peer.text("test_simple_text"),
        "failed": (await peer.client.call_tool("test_error_handling", {})).is_error,
        "unknown": await code(peer.client.call_tool("no_such_tool", {})),
    }


@story
async def content(peer):
    result = await peer.client.call_tool("test_multiple_content_types", {})
    return {"types": [block.type for block in result.content]}


@story
async def structured(peer):
    # The SDK itself holds the content against the schema.
    listed = (await peer.client.list_tools()).tools
    tool = next(tool.name for tool in listed if tool.output_schema)
    return {"there": (await peer.client.call_tool(tool, {})).structured_content is not None}


@story
async def invalid_arguments(peer):
    try:
        result = await peer.client.call_tool("json_schema_2020_12_tool", {"name": 1})
        return {"refused": result.is_error}
    except MCPError as error:
        return {"refused": error.error.code == types.INVALID_PARAMS}


@story
async def resources(peer):
    listed = [str(resource.uri) for resource in (await peer.client.list_resources()).resources]
    templates = (await peer.client.list_resource_templates()).resource_templates
    text = (await peer.client.read_resource("test://static-text")).contents[0].text
    made = (await peer.client.read_resource("test://template/123/data")).contents[0].text
    return {
        "listed": WATCHED in listed,
        "templates": [template.uri_template for template in templates],
        "text": text,
        "made": json.loads(made)["id"],
        "unknown": await code(peer.client.read_resource("test://no-such-resource")),
    }


@story
async def subscriptions(peer):
    if peer.era == "legacy":
        await peer.client.subscribe_resource(WATCHED)
        await peer.client.unsubscribe_resource(WATCHED)
        return {"honored": [WATCHED]}
    async with peer.client.listen(resource_subscriptions=[WATCHED]) as subscription:
        return {"honored": [str(uri) for uri in subscription.honored.resource_subscriptions or []]}


@story
async def prompts(peer):
    listed = (await peer.client.list_prompts()).prompts
    arguments = {"arg1": "first", "arg2": "second"}
    prompt = await peer.client.get_prompt("test_prompt_with_arguments", arguments)
    return {
        "listed": "test_simple_prompt" in [prompt.name for prompt in listed],
        "text": prompt.messages[0].content.text,
        "unknown": await code(peer.client.get_prompt("no_such_prompt")),
    }


@story
async def completion(peer):
    reference = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
    result = await peer.client.complete(reference, {"name": "arg1", "value": "t"})
    return {"few": len(result.completion.values) <= 100}


@story
async def logging(peer):
    if peer.era == "legacy":
        await peer.client.set_logging_level("debug")
    await peer.client.call_tool("test_tool_with_logging" if peer.era == "legacy" else "test_logging_tool", {})
    return {"logged": len(peer.logged) >= (3 if peer.era == "legacy" else 1)}


@story
async def progress(peer):
    told = []

    async def hear(progress, total, _message):
        told.append([progress, total])

    await peer.client.call_tool("test_tool_with_progress", {}, progress_callback=hear)
    return {"told": told}


@story
async def cancellation(peer):
    call = asyncio.create_task(peer.client.call_tool("slow_compute", {"seconds": 60}))
    await asyncio.sleep(0)
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        pass
    return {"text": await peer.text("test_simple_text")}


@story
async def sampling(peer):
    if peer.era == "legacy":
        text = await peer.text("test_sampling", {"prompt": "a question"})
    else:
        text = await peer.text("test_input_required_result_sampling")
    return {"answered": SAMPLED in text}


@story
async def elicitation(peer):
    if peer.era == "legacy":
        text = await peer.text("test_elicitation", {"message": "Who are you?"})
    else:
        text = await peer.text("test_input_required_result_elicitation")
    return {"answered": FILLED_IN in text}


@story
async def roots(peer):
    # No tool of the suites asks for roots in the revisions with a handshake.
    if peer.era == "legacy":
        return {"answered": True}
    return {"answered": ROOT in await peer.text("test_input_required_result_list_roots")}


@story
async def pages(peer):
    return {"unknown": await code(peer.client.list_tools(cursor="no such cursor"))}


@story
async def change(peer):
    if peer.era == "legacy":
        await peer.client.call_tool("test_trigger_tool_change", {})
        while await peer.heard.get() != "notifications/tools/list_changed":
            pass
        return {"told": True}
    async with peer.client.listen(tools_list_changed=True) as subscription:
        await peer.client.call_tool("test_trigger_tool_change", {})
        async for _event in subscription:
            return {"told": True}
    return {"told": False}


@story
async def ping(peer):
    if peer.era == "legacy":
        await peer.client.send_ping()
    return {"answered": True}


async def main(url, era):
    peer = Peer(url, era)
    async with peer.client:
        for told in STORIES:
            try:
                say(told.__name__, **await asyncio.wait_for(told(peer), PATIENCE_S))
            except Exception as error:
                traceback.print_exc()
                say(told.__name__, error=repr(error))
    say("quit")


asyncio.run(main(*sys.argv[1:]))
