"""For uvicorn."""

import os

from django.core.asgi import get_asgi_application
from lotse_django.asgi import with_lifespan

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.clients.django_shop.settings")
application = with_lifespan(get_asgi_application())
