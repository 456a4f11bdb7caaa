"""The choice of the model in the form: a button, and a dialog with cards."""

from playwright.sync_api import Page, expect


def choose_model(page: Page, model: str) -> None:
    """Choose a model by its id."""
    page.locator("#model-button").click()
    dialog = page.get_by_role("dialog", name="Choose a model")
    dialog.locator(f'[data-model="{model}"]').click()
    expect(dialog).to_have_count(0)
    expect_model(page, model)


def expect_model(page: Page, model: str) -> None:
    """Expect that the form has this model."""
    expect(page.locator("#model-button")).to_have_attribute("data-model", model)
