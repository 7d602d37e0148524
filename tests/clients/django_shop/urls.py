"""The shop's addresses."""

from __future__ import annotations

from django.contrib.staticfiles.views import serve
from django.urls import path

from tests.clients.django_shop import views

urlpatterns = [
    path("", views.home),
    path("p/<slug:sku>/", views.product),
    path("cart/", views.cart),
    path("cart/add/", views.add),
    path("order/", views.order),
    path("consent/", views.choose),
    path("quiet/", views.quiet),
    path("misspelt/", views.misspelt),
    path("openfeature/", views.open_feature),
    path("counts/", views.counts),
    path("static/<path:path>", serve, {"insecure": True}),
]
