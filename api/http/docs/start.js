// Starts Swagger UI, and adds a button to each example that copies it.
const root = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: root.dataset.document,
  domNode: root,
  layout: "BaseLayout",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: -1,
  filter: true,
  persistAuthorization: true,
  displayRequestDuration: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});

const clients = document.querySelector(".clients");
if (navigator.clipboard) {
  for (const example of clients.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = clients.dataset.copy;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(example.textContent);
      button.textContent = clients.dataset.copied;
      setTimeout(() => { button.textContent = clients.dataset.copy; }, 2000);
    });
    example.before(button);
  }
}
