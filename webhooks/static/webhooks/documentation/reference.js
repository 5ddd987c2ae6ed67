// Starts Swagger UI on the element that names the description. Nothing is loaded from elsewhere:
// no validator, no fonts.
"use strict";

const place = document.getElementById("reference");

window.SwaggerUIBundle({
  url: place.dataset.url,
  domNode: place,
  deepLinking: true,
  validatorUrl: null,
  oauth2RedirectUrl: new URL(place.dataset.redirect, window.location.href).href,
});
