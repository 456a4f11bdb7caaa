"""The text that stands for a model in calls: the account's own endpoint or id, else the vendor's id of its region."""

from worker.providers.ark.models import CHINA, INTERNATIONAL, built_in_models
from worker.providers.base import Account


def model_id(account: Account, name: str) -> str:
    """Return what is sent as the model `name`. A model that the data does not have is sent as it is."""
    if own := account.model_ids.get(name):
        return own
    models = built_in_models()
    found = models.find_video(name) or models.find_image(name)
    place = CHINA if account.region == "cn" else INTERNATIONAL
    return found.ids.get(place, name) if found is not None else name
