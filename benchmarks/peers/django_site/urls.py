"""Nobody asks for a page."""

urlpatterns: list[object] = []
