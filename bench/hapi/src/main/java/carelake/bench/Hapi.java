package carelake.bench;

import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.provider.IJpaSystemProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;

/** HAPI FHIR's JPA server, R4, on {@code http://127.0.0.1:<bench.port>/fhir}. Prints {@code ready} when it answers. */
public final class Hapi {

  private Hapi() {}

  public static void main(String[] arguments) throws Exception {
    AnnotationConfigApplicationContext spring = new AnnotationConfigApplicationContext(Wiring.class);
    RestfulServer fhir = new RestfulServer(spring.getBean(IFhirSystemDao.class).getContext());
    fhir.registerProviders(spring.getBean(ResourceProviderFactory.class).createProviders());
    fhir.registerProvider(spring.getBean(IJpaSystemProvider.class));
    DatabaseBackedPagingProvider pages = spring.getBean(DatabaseBackedPagingProvider.class);
    pages.setDefaultPageSize(50); // as carelake's
    pages.setMaximumPageSize(1000);
    fhir.setPagingProvider(pages);
    fhir.setDefaultPrettyPrint(false);

    Server server = new Server(new QueuedThreadPool(32));
    ServerConnector connector = new ServerConnector(server);
    connector.setHost("127.0.0.1");
    connector.setPort(Integer.getInteger("bench.port"));
    server.addConnector(connector);
    ServletContextHandler context = new ServletContextHandler("/");
    context.addServlet(new ServletHolder(fhir), "/fhir/*");
    server.setHandler(context);
    server.start();
    System.out.println("ready");
    server.join();
  }
}
