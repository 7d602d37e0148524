"""The shop's pages. Under ASGI the same, asynchronous."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.apps import apps
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST
from lotse_django import no_page_view, page_view

SHOES = {"walker": ("Walker", 79.9), "runner": ("Runner", 99.0), "sandal": ("Sandal", 39.5)}


def either(view: Callable[..., HttpResponse]) -> Callable[..., Any]:
    """The view as the shop's server likes it best."""
    if os.environ.get("SHOP_SERVER") != "uvicorn":
        return view

    @wraps(view)
    async def asynchronous(request: HttpRequest, *arguments: Any, **named: Any) -> HttpResponse:
        await asyncio.sleep(0)
        return view(request, *arguments, **named)

    return asynchronous


@either
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "home.html", {"shoes": SHOES})


@page_view("view_item", lambda request, sku: {"item": sku, "category": "shoes"})
@either
def product(request: HttpRequest, sku: str) -> HttpResponse:
    name, price = SHOES[sku]
    return render(request, "product.html", {"sku": sku, "name": name, "price": price})


@page_view("view_cart")
@either
def cart(request: HttpRequest) -> HttpResponse:
    return render(request, "cart.html", {"skus": request.session.get("cart", [])})


@either
@require_POST
def add(request: HttpRequest) -> HttpResponse:
    sku = request.POST["sku"]
    request.session["cart"] = [*request.session.get("cart", []), sku]
    request.lotse.track("add_to_cart", item=sku, category="shoes", price=SHOES[sku][1])
    return HttpResponseRedirect("/cart/")


@either
@require_POST
def order(request: HttpRequest) -> HttpResponse:
    skus = request.session.pop("cart", [])
    items = [{"item": sku, "price": SHOES[sku][1]} for sku in skus]
    request.lotse.track("purchase", {"value": sum(SHOES[sku][1] for sku in skus), "items": items})
    if "fails" in request.POST:
        raise RuntimeError("the bank does not answer")
    return HttpResponseRedirect("/")


@either
@require_POST
def choose(request: HttpRequest) -> HttpResponse:
    """The visitor's choice in the shop's own banner."""
    if purposes := request.POST.getlist("purpose"):
        request.lotse.grant(*purposes)
    else:
        request.lotse.withdraw()
    return HttpResponseRedirect("/")


@no_page_view
@either
def quiet(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nobody is told")


@either
def misspelt(request: HttpRequest) -> HttpResponse:
    request.lotse.track("add_to_cart", itme="walker")
    request.lotse.track("add_to_cart", price="dear")
    request.lotse.track("no_such_event")
    return HttpResponse("all the same")


@either
def open_feature(request: HttpRequest) -> HttpResponse:
    from openfeature import api  # noqa: PLC0415  (only one test's shop has it)

    client = api.get_client()
    found = {
        "help_offer": client.get_string_details("help_offer", "default"),
        "price": client.get_float_details("price", 0.5),
        "wrong": client.get_boolean_details("help_offer", True),
        "other": client.get_string_details("other", "default"),
    }
    told = {key: [one.value, one.error_code and one.error_code.value] for key, one in found.items()}
    return JsonResponse(told)


@no_page_view
def counts(request: HttpRequest) -> HttpResponse:
    client = apps.get_app_config("lotse_django").client
    return JsonResponse({**client.counts, "waiting": len(client.outbox)})


def fails(request: HttpRequest) -> Any:
    """A shop's function with a mistake in it; the mistake's text names the visitor."""
    raise ValueError(f"cannot read the consent of {request.META['REMOTE_ADDR']}")
