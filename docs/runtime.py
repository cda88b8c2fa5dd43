"""An extension of Griffe, which reads the code for the API's page without running it: the settings of the middleware.

Its signature and its docstring's settings are made from their declarations when it is imported.
"""

import inspect
from typing import Any

from griffe import Docstring, Extension, Module, Parameter, ParameterKind, Parameters

from gearwsgi import GearmanMiddleware
from gearwsgi.settings import SETTINGS


class Runtime(Extension):
    """Gives the middleware's page the signature and the arguments that it has at run time."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        middleware = pkg["submit.middleware.GearmanMiddleware"]
        beginning, _, rest = (GearmanMiddleware.__doc__ or "").partition("Args:\n")
        errors = rest.partition("Raises:\n")[2].partition("\n\n")[0]
        settings = "".join(f"    {name}: {setting.help}\n" for name, setting in SETTINGS.items())
        text = f"{beginning}Args:\n    app: the application.\n{settings}\nRaises:\n{errors}"
        middleware.docstring = Docstring(text, parent=middleware, parser="google")
        init = middleware["__init__"]
        annotations = {name: each.annotation for name, each in pkg["settings.Keywords"].members.items()}
        annotations |= {each.name: each.annotation for each in init.parameters}
        init.parameters = Parameters(
            *(
                Parameter(
                    each.name,
                    kind=ParameterKind(each.kind.description),
                    annotation=annotations.get(each.name),
                    default=None if each.default is each.empty else repr(each.default),
                )
                for each in inspect.signature(GearmanMiddleware).parameters.values()
            )
        )
