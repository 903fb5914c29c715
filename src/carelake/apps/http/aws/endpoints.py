"""Models and endpoint configurations, which have a name here alone; and endpoints, which are ours.

A model is one model package of the registry; there is no image to run another. Every request to an endpoint is
captured, whatever a configuration says of sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from carelake.apps.http.aws.lists import listed
from carelake.apps.http.aws.models import SAGEMAKER
from carelake.apps.http.aws.named import Named, Thing
from carelake.apps.http.aws.served import Asked, Run, Served
from carelake.audit.tables import noun
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, Invalid, NotFound, Unsupported

__all__ = ["configs_of", "models_of", "operations"]

_READS, _DEPLOYS = "model:read", "endpoint:deploy"
_TARGET = "endpoints"


def operations() -> list[Served]:
    """What is served of them."""
    changing: Mapping[str, Run] = {
        "CreateModel": create_model,
        "DeleteModel": delete_model,
        "CreateEndpointConfig": create_config,
        "DeleteEndpointConfig": delete_config,
        "CreateEndpoint": create_endpoint,
        "UpdateEndpoint": update_endpoint,
        "UpdateEndpointWeightsAndCapacities": update_weights,
        "DeleteEndpoint": delete_endpoint,
    }
    reading: Mapping[str, Run] = {
        "DescribeModel": describe_model,
        "ListModels": list_models,
        "DescribeEndpointConfig": describe_config,
        "ListEndpointConfigs": list_configs,
        "DescribeEndpoint": describe_endpoint,
        "ListEndpoints": list_endpoints,
    }
    found = [Served(SAGEMAKER, name, _DEPLOYS, _TARGET, run, changes=True) for name, run in changing.items()]
    return [*found, *(Served(SAGEMAKER, name, _READS, _TARGET, run) for name, run in reading.items())]


def models_of(asked: Asked) -> Named:
    """Models by name."""
    return Named(asked.door.vault, "model", "model")


def configs_of(asked: Asked) -> Named:
    """Endpoint configurations."""
    return Named(asked.door.vault, "endpoint-config", "endpoint configuration")


def _under(asked: Asked) -> Named:
    """Under which configuration an endpoint was put."""
    return Named(asked.door.vault, "endpoint", "endpoint")


def _without_tags(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name != "Tags"}


# -- models


def create_model(asked: Asked) -> Mapping[str, Any]:
    """CreateModel, of one model package."""
    said = asked.said
    containers = [*([said["PrimaryContainer"]] if "PrimaryContainer" in said else []), *said.get("Containers", ())]
    if len(containers) != 1 or "ModelPackageName" not in containers[0] or "Image" in containers[0]:
        raise Unsupported(
            "http.aws_container",
            "A model here is one container with a ModelPackageName, and no image: a version of the registry.",
        )
    _package(asked, str(containers[0]["ModelPackageName"]))
    models_of(asked).create(asked.permit, said["ModelName"], _without_tags(said))
    return {"ModelArn": asked.arn(f"model/{said['ModelName']}")}


def delete_model(asked: Asked) -> Mapping[str, Any]:
    """DeleteModel; the model package stays."""
    models_of(asked).delete(asked.permit, asked.said["ModelName"])
    return {}


def describe_model(asked: Asked) -> Mapping[str, Any]:
    """DescribeModel."""
    one = models_of(asked).get(asked.permit, asked.said["ModelName"])
    return {**one.said, "ModelArn": asked.arn(f"model/{one.name}"), "CreationTime": one.created}


def list_models(asked: Asked) -> Mapping[str, Any]:
    """ListModels."""
    found = [_brief(asked, one, "Model", "model") for one in models_of(asked).all(asked.permit)]
    return listed(asked, "ListModels", "Models", found, "ModelName")


def _brief(asked: Asked, one: Thing, word: str, kind: str) -> dict[str, Any]:
    return {f"{word}Name": one.name, f"{word}Arn": asked.arn(f"{kind}/{one.name}"), "CreationTime": one.created}


def _package(asked: Asked, text: str) -> str:
    """The ref of a model package."""
    return asked.door.platform.model_packages.find(asked.permit, text).ref


# -- configurations


def create_config(asked: Asked) -> Mapping[str, Any]:
    """CreateEndpointConfig, of models that there are."""
    said = asked.said
    for variants in (said["ProductionVariants"], said.get("ShadowProductionVariants", ())):
        list(_variants(asked, variants))
        if len({one["VariantName"] for one in variants}) < len(variants):
            raise Invalid("http.aws_variant", "Two variants have one name; expected a VariantName for each.")
    unheard = [
        name for name in ("AsyncInferenceConfig", "ExplainerConfig", "CrossRegionTrafficConfig") if name in said
    ]
    if unheard:
        raise Unsupported("http.aws_config", f"{unheard[0]} is not followed here; leave it out.")
    configs_of(asked).create(asked.permit, said["EndpointConfigName"], _without_tags(said))
    return {"EndpointConfigArn": asked.arn(f"endpoint-config/{said['EndpointConfigName']}")}


def delete_config(asked: Asked) -> Mapping[str, Any]:
    """DeleteEndpointConfig; what an endpoint was told by it stands."""
    configs_of(asked).delete(asked.permit, asked.said["EndpointConfigName"])
    return {}


def describe_config(asked: Asked) -> Mapping[str, Any]:
    """DescribeEndpointConfig."""
    one = configs_of(asked).get(asked.permit, asked.said["EndpointConfigName"])
    arn = asked.arn(f"endpoint-config/{one.name}")
    return {**one.said, "EndpointConfigArn": arn, "CreationTime": one.created}


def list_configs(asked: Asked) -> Mapping[str, Any]:
    """ListEndpointConfigs."""
    found = [_brief(asked, one, "EndpointConfig", "endpoint-config") for one in configs_of(asked).all(asked.permit)]
    return listed(asked, "ListEndpointConfigs", "EndpointConfigs", found, "EndpointConfigName")


def _variants(asked: Asked, said: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Variants with the refs of their models, as `Endpoints.deploy` takes them."""
    for one in said:
        if "ModelName" not in one:
            raise Unsupported("http.aws_container", "A variant here has a ModelName.")
        container = models_of(asked).get(asked.permit, one["ModelName"]).said
        first = container.get("PrimaryContainer") or container["Containers"][0]
        told = {"VariantName": one["VariantName"], "ModelName": _package(asked, first["ModelPackageName"])}
        yield {**told, **{k: one[k] for k in ("InitialVariantWeight",) if k in one}}


# -- endpoints


def create_endpoint(asked: Asked) -> Mapping[str, Any]:
    """CreateEndpoint: all traffic at once, since there was nothing before."""
    name = asked.said["EndpointName"]
    if _status(asked, name) is not None:
        raise Conflict("http.aws_exists", "There is an endpoint of this name; update it.")
    return _deployed(asked, name, asked.said.get("DeploymentConfig"))


def update_endpoint(asked: Asked) -> Mapping[str, Any]:
    """UpdateEndpoint: traffic moves as DeploymentConfig says."""
    said, name = asked.said, asked.said["EndpointName"]
    before = _known(asked, name)
    policy = said.get("DeploymentConfig")
    if said.get("RetainDeploymentConfig"):
        policy = before["LastDeploymentConfig"]
    return _deployed(asked, name, policy)


def _deployed(asked: Asked, name: str, policy: Mapping[str, Any] | None) -> Mapping[str, Any]:
    config = configs_of(asked).get(asked.permit, asked.said["EndpointConfigName"])
    variants = list(_variants(asked, config.said["ProductionVariants"]))
    shadows = list(_variants(asked, config.said.get("ShadowProductionVariants", ())))
    endpoints, before = asked.door.platform.endpoints, _status(asked, name)
    boxed = _isolated(asked, config.said)
    endpoints.deploy(asked.permit, name, policy=policy, variants=variants, shadows=shadows, sandbox=boxed)
    found, under = _known(asked, name), _under(asked).find(asked.permit, name)
    created = instant(found["LastModifiedTime"]) if before is None else _created(asked, before, under)
    told: dict[str, Any] = {
        "EndpointConfigName": config.name,
        "Revision": found["revision"],
        "Created": iso(created),
    }
    if before is not None and before["revision"] != found["revision"]:
        told["Before"] = _answering(before, under)
    _under(asked).keep(asked.permit, name, told)
    return {"EndpointArn": asked.arn(f"endpoint/{name}")}


def _isolated(asked: Asked, said: Mapping[str, Any]) -> bool | None:
    """``EnableNetworkIsolation``, of the configuration or of a model in it: that is our sandbox, which is more."""
    variants = [*said["ProductionVariants"], *said.get("ShadowProductionVariants", ())]
    told = [models_of(asked).get(asked.permit, one["ModelName"]).said for one in variants]
    words = [one["EnableNetworkIsolation"] for one in (said, *told) if "EnableNetworkIsolation" in one]
    return any(words) if words else None


def _answering(found: Mapping[str, Any], under: Thing | None) -> str:
    """The configuration that answers: while a rollout goes on, and when it went back, the one before it.

    "" where none is known: the endpoint was changed otherwise than by this door.
    """
    if under is None or under.said.get("Revision") != found["revision"]:
        return ""
    begun = "PendingDeploymentSummary" in found or "FailureReason" in found
    return str(under.said["Before" if begun and "Before" in under.said else "EndpointConfigName"])


def update_weights(asked: Asked) -> Mapping[str, Any]:
    """UpdateEndpointWeightsAndCapacities: weights, at once; there are no instances to count."""
    said, name = asked.said, asked.said["EndpointName"]
    before = _known(asked, name)
    weights = {one["VariantName"]: one.get("DesiredWeight") for one in said["DesiredWeightsAndCapacities"]}
    present = before["ProductionVariants"]
    if not weights.keys() <= {one["VariantName"] for one in present}:
        raise Invalid("http.aws_variant", "DesiredWeightsAndCapacities names a variant that the endpoint has not.")
    told = [
        {
            "VariantName": one["VariantName"],
            "ModelName": one["ModelName"],
            "InitialVariantWeight": one["DesiredWeight"] if (w := weights.get(one["VariantName"])) is None else w,
        }
        for one in present
    ]
    shadows = [{k: one[k] for k in ("VariantName", "ModelName")} for one in before["ShadowProductionVariants"]]
    under = _under(asked).find(asked.permit, name)
    config, created = _answering(before, under), _created(asked, before, under)
    asked.door.platform.endpoints.deploy(asked.permit, name, variants=told, shadows=shadows)
    if config:
        kept = {"EndpointConfigName": config, "Revision": _known(asked, name)["revision"], "Created": iso(created)}
        _under(asked).keep(asked.permit, name, kept)
    return {"EndpointArn": asked.arn(f"endpoint/{name}")}


def delete_endpoint(asked: Asked) -> Mapping[str, Any]:
    """DeleteEndpoint; what it captured stays."""
    asked.door.platform.endpoints.delete(asked.permit, asked.said["EndpointName"])
    _under(asked).delete(asked.permit, asked.said["EndpointName"], there=False)
    return {}


def describe_endpoint(asked: Asked) -> Mapping[str, Any]:
    """DescribeEndpoint."""
    name = asked.said["EndpointName"]
    found, under = _known(asked, name), _under(asked).find(asked.permit, name)
    told = _summary(asked, found, under)
    told["ProductionVariants"] = [_variant(one) for one in found["ProductionVariants"]]
    if found["ShadowProductionVariants"]:
        told["ShadowProductionVariants"] = [_variant(one) for one in found["ShadowProductionVariants"]]
    for member in ("LastDeploymentConfig", "FailureReason"):
        if found.get(member):
            told[member] = found[member]
    if config := _answering(found, under):
        told["EndpointConfigName"] = config
    pending = found.get("PendingDeploymentSummary")
    if pending and under is not None and under.said.get("Revision") == found["revision"]:
        told["PendingDeploymentSummary"] = {
            "EndpointConfigName": under.said["EndpointConfigName"],
            "ProductionVariants": [_variant(one) for one in pending["ProductionVariants"]],
            "StartTime": instant(pending["StartTime"]),
        }
    told["DataCaptureConfig"] = {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 100,
        "DestinationS3Uri": "s3://carelake/captures",
        "KmsKeyId": f"{asked.permit.account}/clinical",
    }
    return told


def list_endpoints(asked: Asked) -> Mapping[str, Any]:
    """ListEndpoints."""
    by_name = {one.name: one for one in _under(asked).all(asked.permit)}
    every = asked.door.platform.endpoints.listed(asked.permit)
    found = [_summary(asked, one, by_name.get(one["EndpointName"])) for one in every]
    return listed(asked, "ListEndpoints", "Endpoints", found, "EndpointName", "EndpointStatus")


def _status(asked: Asked, name: str) -> Mapping[str, Any] | None:
    try:
        return asked.door.platform.endpoints.status(asked.permit, name, alarms=False)
    except NotFound:
        return None


def _known(asked: Asked, name: str) -> Mapping[str, Any]:
    return asked.door.platform.endpoints.status(asked.permit, name, alarms=False)


def _summary(asked: Asked, one: Mapping[str, Any], under: Thing | None) -> dict[str, Any]:
    return {
        "EndpointName": one["EndpointName"],
        "EndpointArn": asked.arn(f"endpoint/{one['EndpointName']}"),
        "EndpointStatus": one["EndpointStatus"],
        "CreationTime": _created(asked, one, under),
        "LastModifiedTime": instant(one["LastModifiedTime"]),
    }


def _created(asked: Asked, one: Mapping[str, Any], under: Thing | None) -> datetime:
    """Since when there is an endpoint: its updates do not change it."""
    if under is not None and "Created" in under.said:
        return instant(str(under.said["Created"]))
    created = under.created if under is not None else _first(asked, one["EndpointRef"])
    return min(created, instant(one["LastModifiedTime"]))


def _first(asked: Asked, ref: str) -> datetime:
    """When this model was first put behind this name, of an endpoint that was not made by way of this door."""
    with asked.door.vault.database.reading(asked.permit) as tx:
        return instant(tx.execute(select(noun.c.at).where(noun.c.ref == ref)).scalar_one())


def _variant(one: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("VariantName", "CurrentWeight", "DesiredWeight")}
